"""For traders: signs, sends, follows; imports nothing of the server."""
