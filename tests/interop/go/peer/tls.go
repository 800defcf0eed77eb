package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
)

// TLS reads certificates that were made beforehand: from the one file a program's own, with its
// key, and from the other whose signatures it trusts, in whichever role it is.
func TLS(own, authority string) (*tls.Config, error) {
	if own == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(own, own)
	if err != nil {
		return nil, err
	}
	signers, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(signers) {
		return nil, errors.New("there is no certificate in " + authority)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   "localhost",
		MinVersion:   tls.VersionTLS12,
	}, nil
}
