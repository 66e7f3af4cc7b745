"""HTTP/2 (RFC 9113) for servers, sans-IO: bytes in, streams and bytes out; no asyncio, no gRPC."""
