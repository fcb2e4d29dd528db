package network

// Traffic is how many bytes the service has exchanged with the kernel about the host's
// links and rules.
func (s *Service) Traffic() int64 {
	sent, received := s.host.conn.Traffic()
	tableSent, tableReceived := s.table.Traffic()
	return sent + received + tableSent + tableReceived
}
