package network

// ResolvConf is the resolver file for what joins a predefined network without being a container: as that of a container
// in mode ModeBridge or ModeHost that asks for nothing. It follows the host's from call to call.
func (s *Service) ResolvConf(mode string) (string, error) {
	return s.resolvFile(&Request{Mode: mode}, &Sandbox{Mode: mode})
}
