"""System checks of a site's settings; no server is asked."""
