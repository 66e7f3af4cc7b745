"""HTTP/2 (RFC 9113), sans-IO: bytes in, streams and bytes out; no asyncio, no gRPC."""
