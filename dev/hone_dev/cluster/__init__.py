"""The embedded cluster: its programs, node, network, images and stores."""
