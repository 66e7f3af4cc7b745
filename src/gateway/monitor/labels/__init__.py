"""Labels: ground truth by the id of the prediction, from HTTP, gRPC and files, checked item by item."""
