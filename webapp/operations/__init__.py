"""Running the site: is it well, what does it do, backup and restore."""
