"""What the gateway and the SDK both know: names, fields, methods, channels."""
