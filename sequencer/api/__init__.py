"""An order's way in: from a wallet over HTTP and WebSocket to the sequencer's socket."""
