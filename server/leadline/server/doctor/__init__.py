"""What a node can do for a server, found out by trying it: `leadline doctor`."""
