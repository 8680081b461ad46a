"""What the routes work with: one container per app, built and run by `container`."""
