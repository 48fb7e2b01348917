"""The API's format, shared by gateway and SDK: names, fields, methods, channels."""
