"""The SDK: signs and sends records, follows events; imports nothing of the server."""
