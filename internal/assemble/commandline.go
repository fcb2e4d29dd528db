package assemble

import (
	"github.com/spf13/pflag"
)

// arguments is the command line that c was made with, without what the configuration file has set.
func (c *Config) arguments() (arguments []string) {
	if c.given == nil {
		return nil
	}
	// All are visited: which of them were given is noted in the flag, and in the set only of the command that parsed it.
	c.given.VisitAll(func(f *pflag.Flag) {
		if _, fromFile := c.fromFile[f.Name]; fromFile || !f.Changed {
			return
		}
		for _, v := range valuesOf(f) {
			arguments = append(arguments, "--"+f.Name+"="+v)
		}
	})
	return arguments
}

// valuesOf are a flag's values as they were given.
func valuesOf(f *pflag.Flag) []string {
	switch v := f.Value.(type) {
	case pflag.SliceValue:
		return v.GetSlice()
	case *givenValues:
		return *v
	}
	return []string{f.Value.String()}
}

// with is the configuration that a command line makes with the file as it is now.
func (c *Config) with(arguments []string) (*Config, error) {
	flags := pflag.NewFlagSet("cleatd", pflag.ContinueOnError)
	next := &Config{Version: c.Version, Commit: c.Commit, BuildTime: c.BuildTime}
	next.BindFlags(flags)
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	return next, next.Check()
}
