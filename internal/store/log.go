package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// newLogger makes the logger that containerd's packages find in a context: they say at
// info level what is ordinary ("trying next host"), and only warnings and worse are
// passed on, to warn.
func newLogger(warn func(error)) *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.WarnLevel)
	l.AddHook(warnHook{warn})
	return logrus.NewEntry(l)
}

type warnHook struct{ warn func(error) }

func (warnHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel}
}

func (h warnHook) Fire(e *logrus.Entry) error {
	text := e.Message
	for _, field := range []string{"path", "key", "snapshotter"} {
		if v, ok := e.Data[field]; ok {
			text += fmt.Sprintf(" (%s %v)", field, v)
		}
	}
	if err, ok := e.Data[logrus.ErrorKey].(error); ok {
		h.warn(fmt.Errorf("%s: %w", text, err))
		return nil
	}
	h.warn(errors.New(text))
	return nil
}
