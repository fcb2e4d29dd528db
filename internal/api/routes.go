package api

import "slices"

// routes are the operations that are served; refusals are those that are not.
func (h *Handler) routes() []route {
	return slices.Concat(h.systemRoutes(), h.containerRoutes(), h.execRoutes(), h.imageRoutes(), h.buildRoutes(), h.volumeRoutes(), h.networkRoutes(),
		h.volumeCopyRoutes(), h.networkCheckRoutes(), h.ownFileRoutes())
}

func (h *Handler) systemRoutes() []route {
	return []route{
		{"GET", "/_ping", h.ping},
		{"HEAD", "/_ping", h.ping},
		{"GET", "/version", h.systemVersion},
		{"GET", "/info", h.systemInfo},
		{"GET", "/events", h.systemEvents},
		{"POST", "/auth", h.registryLogin},
		{"GET", "/system/df", h.systemDiskUsage},
		{"GET", "/plugins", h.pluginList},
		{"GET", "/plugins/{name}/json", h.pluginInspect},
	}
}

func (h *Handler) containerRoutes() []route {
	return []route{
		{"GET", "/containers/json", h.containerList},
		{"POST", "/containers/create", h.containerCreate},
		{"GET", "/containers/{id}/json", h.containerInspect},
		{"GET", "/containers/{id}/top", h.containerTop},
		{"GET", "/containers/{id}/stats", h.containerStats},
		{"POST", "/containers/{id}/start", h.containerStart},
		{"POST", "/containers/{id}/stop", form(h.containerStop)},
		{"POST", "/containers/{id}/restart", form(h.containerRestart)},
		{"POST", "/containers/{id}/kill", form(h.containerKill)},
		{"POST", "/containers/{id}/pause", h.containerPause},
		{"POST", "/containers/{id}/unpause", h.containerUnpause},
		{"POST", "/containers/{id}/wait", form(h.containerWait)},
		{"POST", "/containers/{id}/rename", form(h.containerRename)},
		{"POST", "/containers/{id}/update", h.containerUpdate},
		{"POST", "/containers/{id}/resize", form(h.containerResize)},
		{"POST", "/containers/{id}/attach", h.containerAttach},
		{"GET", "/containers/{id}/attach/ws", h.containerAttachWebsocket},
		{"GET", "/containers/{id}/logs", h.containerLogs},
		{"DELETE", "/containers/{id}", h.containerRemove},
		{"HEAD", "/containers/{id}/archive", h.archiveStat},
		{"GET", "/containers/{id}/archive", h.archiveGet},
		{"PUT", "/containers/{id}/archive", h.archivePut},
		{"GET", "/containers/{id}/changes", h.containerChanges},
		{"GET", "/containers/{id}/export", h.containerExport},
		{"POST", "/commit", h.containerCommit},
		{"POST", "/containers/prune", form(h.containerPrune)},
	}
}

func (h *Handler) execRoutes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", h.execCreate},
		{"POST", "/exec/{id}/start", h.execStart},
		{"POST", "/exec/{id}/resize", form(h.execResize)},
		{"GET", "/exec/{id}/json", h.execInspect},
	}
}

func (h *Handler) imageRoutes() []route {
	return []route{
		{"GET", "/images/search", h.imageSearch},
		{"GET", "/distribution/{name}/json", h.distributionInspect},
		{"POST", "/images/prune", form(h.imagePrune)},
		{"GET", "/images/get", h.imageSave},
		{"GET", "/images/{name}/get", h.imageSave},
		{"GET", "/images/json", h.imageList},
		{"POST", "/images/create", h.imageCreate},
		{"POST", "/images/load", h.imageLoad},
		{"GET", "/images/{name}/json", h.imageInspect},
		{"GET", "/images/{name}/history", h.imageHistory},
		{"GET", "/images/{name}/attestations", h.imageAttestations},
		{"POST", "/images/{name}/tag", form(h.imageTag)},
		{"POST", "/images/{name}/push", form(h.imagePush)},
		{"DELETE", "/images/{name}", h.imageRemove},
	}
}

func (h *Handler) buildRoutes() []route {
	return []route{
		{"POST", "/build", h.imageBuild},
		{"POST", "/build/cancel", form(h.buildCancel)},
		{"POST", "/build/prune", form(h.buildPrune)},
		{"POST", "/grpc", h.buildGRPC},
		{"POST", "/session", h.buildSession},
	}
}

func (h *Handler) volumeRoutes() []route {
	return []route{
		{"GET", "/volumes", h.volumeList},
		{"POST", "/volumes/create", h.volumeCreate},
		{"POST", "/volumes/prune", form(h.volumePrune)},
		{"GET", "/volumes/{name}", h.volumeInspect},
		{"DELETE", "/volumes/{name}", h.volumeRemove},
	}
}

func (h *Handler) networkRoutes() []route {
	return []route{
		{"GET", "/networks", h.networkList},
		{"GET", "/networks/", h.networkList},
		{"GET", "/networks/{id}", h.networkInspect},
		{"DELETE", "/networks/{id}", h.networkRemove},
		{"POST", "/networks/create", h.networkCreate},
		{"POST", "/networks/prune", form(h.networkPrune)},
		{"POST", "/networks/{id}/connect", h.networkConnect},
		{"POST", "/networks/{id}/disconnect", h.networkDisconnect},
	}
}
