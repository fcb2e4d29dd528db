package connect

import (
	"path/filepath"
	"strings"
)

const (
	wantsTLS   = "Client sent an HTTP request to an HTTPS server"
	wantsPlain = "first record does not look like a TLS handshake"

	howToAuthenticate = "--tlscert and --tlskey, or cert.pem and key.pem in the directory DOCKER_CERT_PATH"
	howToTrust        = "--tlscacert, or ca.pem in the directory DOCKER_CERT_PATH"
)

// saidOverTLS says what is wrong where an engine is there and both sides do not agree on TLS or on a certificate; ""
// if it is something else.
func saidOverTLS(cause string) string {
	_, alert, remote := strings.Cut(cause, "remote error: tls: ")
	_, untrusted, local := strings.Cut(cause, "x509: ")
	switch {
	case strings.Contains(cause, wantsTLS):
		return "it is served with TLS there: give --tlsverify, or set DOCKER_TLS_VERIFY=1, and name the certificates by --tlscacert," +
			" --tlscert and --tlskey or by the directory DOCKER_CERT_PATH"
	case strings.Contains(cause, wantsPlain) || strings.Contains(cause, "server gave HTTP response to HTTPS client"):
		return "what answers there does not speak TLS: leave out --tlsverify, --tls, DOCKER_TLS_VERIFY and DOCKER_TLS, or correct the port"
	case remote && strings.HasPrefix(alert, "certificate required"):
		return "it lets in only clients with a certificate of an authority that it trusts: name yours by " + howToAuthenticate
	case remote && strings.Contains(alert, "certificate"):
		return "it does not accept the client's certificate (" + alert + "): name another by " + howToAuthenticate
	case local && strings.Contains(untrusted, "unknown authority"):
		return "its certificate is of an authority that is not trusted here: name that by " + howToTrust
	case local:
		return "its certificate is not accepted here: " + untrusted
	}
	return ""
}

// certificates are the files that authenticate the engine and the client: "" for one that is looked for by default,
// or in DOCKER_CERT_PATH, and not there. One that was named has to be.
func (o *Options) certificates() (ca, cert, key string) {
	usual := func(dir, name, path string) string {
		if path == filepath.Join(dir, name) {
			return existing(path)
		}
		return path
	}
	authorities := defaultCertDir()
	if !o.TLSVerify {
		authorities = certDir() // nothing is verified by it
	}
	return usual(authorities, "ca.pem", o.TLSCA), usual(certDir(), "cert.pem", o.TLSCert), usual(certDir(), "key.pem", o.TLSKey)
}
