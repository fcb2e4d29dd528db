package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/dockerconfig"
)

// hubServer is how Docker Hub's credentials are filed.
const hubServer = "https://index.docker.io/v1/"

type loginOptions struct {
	user, password string
	fromStdin      bool
}

func (a *app) login() spec {
	return spec{
		use: "login [OPTIONS] [SERVER]", short: "Authenticate to a registry",
		long: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.", args: a.maxArgs(1),
		setup: func(fs *pflag.FlagSet) action {
			var o loginOptions
			fs.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
			fs.BoolVar(&o.fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
			fs.StringVarP(&o.user, "username", "u", "", "Username")
			return func(ctx context.Context, args []string) error {
				if err := a.loginSecret(&o, fs.Changed("password")); err != nil {
					return err
				}
				server := hubServer
				if len(args) > 0 && args[0] != "docker.io" {
					server = credentials.ConvertToHostname(args[0])
				}
				return a.logIn(ctx, server, o)
			}
		},
	}
}

// loginSecret checks how the password comes, and reads it if it comes on the standard
// input.
func (a *app) loginSecret(o *loginOptions, onCommandLine bool) error {
	if onCommandLine {
		_, _ = fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		if o.fromStdin {
			return errors.New("--password and --password-stdin are mutually exclusive")
		}
	}
	if !o.fromStdin {
		return nil
	}
	if o.user == "" {
		return errors.New("Must provide --username with --password-stdin") //nolint:staticcheck // Docker's text
	}
	secret, err := io.ReadAll(a.in)
	if err != nil {
		return err
	}
	o.password = strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	if o.password == "" {
		return errors.New("password is empty")
	}
	return nil
}

// logIn tries what is stored if nothing was given, asks for what is missing, and stores
// what the registry has accepted.
func (a *app) logIn(ctx context.Context, server string, o loginOptions) error {
	if err := dockerconfig.Intact(a.config()); err != nil {
		return err
	}
	stored, err := a.config().GetAuthConfig(server)
	if err != nil {
		_, _ = fmt.Fprintln(a.err, "WARNING: could not read the stored credentials:", dockerconfig.ExplainHelper(a.config(), err))
	}
	stored.ServerAddress = server
	if o.user == "" && o.password == "" && (stored.Username != "" && stored.Password != "" || stored.IdentityToken != "") {
		_, _ = fmt.Fprintf(a.err, "Authenticating with existing credentials... [Username: %s]\n\n", stored.Username)
		err := a.tryLogin(ctx, stored)
		if err == nil || !errdefs.IsUnauthorized(err) {
			return err
		}
		_, _ = fmt.Fprintln(a.err, "Login did not succeed, error:", err)
	}
	with := types.AuthConfig{Username: o.user, Password: o.password, ServerAddress: server}
	if with.Username == "" || with.Password == "" {
		if err := a.askCredentials(ctx, &with, stored.Username); err != nil {
			return err
		}
	}
	return a.tryLogin(ctx, with)
}

func (a *app) tryLogin(ctx context.Context, with types.AuthConfig) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	res, err := c.RegistryLogin(ctx, client.RegistryLoginOptions{
		Username: with.Username, Password: with.Password, ServerAddress: with.ServerAddress, IdentityToken: with.IdentityToken,
		RegistryToken: with.RegistryToken,
	})
	if err != nil {
		return err
	}
	if res.Auth.IdentityToken != "" {
		with.Password, with.IdentityToken = "", res.Auth.IdentityToken
	}
	with.Auth = ""
	if err := dockerconfig.Store(a.config(), with); err != nil {
		return fmt.Errorf("Error saving credentials: %w", dockerconfig.ExplainHelper(a.config(), err)) //nolint:staticcheck // Docker's text
	}
	_, _ = fmt.Fprintln(a.out, res.Auth.Status)
	return nil
}

// askCredentials asks on the terminal for what is missing; known is the user who was
// logged in before.
func (a *app) askCredentials(ctx context.Context, with *types.AuthConfig, known string) error {
	if !a.in.IsTerminal() {
		return errors.New("Error: Cannot perform an interactive login from a non TTY device") //nolint:staticcheck // Docker's text
	}
	lines := bufio.NewReader(a.in)
	if with.Username == "" {
		question := "Username: "
		if known != "" {
			question = fmt.Sprintf("Username (%s): ", known)
		}
		_, _ = fmt.Fprint(a.out, question)
		line, err := readLine(ctx, lines)
		if err != nil {
			_, _ = fmt.Fprintln(a.out)
			return err
		}
		if with.Username = strings.TrimSpace(line); with.Username == "" {
			with.Username = known
		}
		if with.Username == "" {
			return errors.New("Error: Non-null Username Required") //nolint:staticcheck // Docker's text
		}
	}
	if with.Password == "" {
		restore, err := a.in.Hide()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprint(a.out, "Password: ")
		line, err := readLine(ctx, lines)
		restore()
		_, _ = fmt.Fprintln(a.out)
		if err != nil {
			return err
		}
		if with.Password = strings.TrimRight(line, "\r\n"); with.Password == "" {
			return errors.New("Error: Password Required") //nolint:staticcheck // Docker's text
		}
	}
	return nil
}

// readLine is what the user types until the line, or all, ends. A signal ends the waiting for it, whose cause is then the
// error: who waits gives the terminal back as it was.
func readLine(ctx context.Context, r *bufio.Reader) (string, error) {
	type typed struct {
		line string
		err  error
	}
	read := make(chan typed, 1) // the reader may outlive the question
	go func() {
		line, err := r.ReadString('\n')
		read <- typed{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case t := <-read:
		if errors.Is(t.err, io.EOF) {
			return t.line, nil
		}
		return t.line, t.err
	}
}

func (a *app) logout() spec {
	return spec{
		use: "logout [SERVER]", short: "Log out from a registry",
		long: "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.", args: a.maxArgs(1),
		setup: func(*pflag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				if err := dockerconfig.Intact(a.config()); err != nil {
					return err
				}
				shown, filed := hubServer, []string{hubServer}
				if len(args) > 0 {
					// Earlier clients filed them under any of these.
					shown = credentials.ConvertToHostname(args[0])
					filed = []string{args[0], shown, "http://" + shown, "https://" + shown}
				}
				_, _ = fmt.Fprintln(a.out, "Removing login credentials for", shown)
				var errs []error
				for _, server := range filed {
					if err := a.config().GetCredentialsStore(server).Erase(server); err != nil {
						errs = append(errs, fmt.Errorf("%s: %w", server, err))
					}
				}
				if len(errs) == len(filed) {
					_, _ = fmt.Fprintf(a.err, "WARNING: could not erase credentials:\n%s\n", errors.Join(errs...))
				}
				return nil
			}
		},
	}
}
