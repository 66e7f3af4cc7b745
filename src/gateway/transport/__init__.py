"""Bytes in, bytes out: the gRPC and HTTP servers; they know no method of any protocol."""
