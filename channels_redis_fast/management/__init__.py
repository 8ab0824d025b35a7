"""The command `manage.py channel_layer`."""
