"""The services that routes use, built and run per app by `container`."""
