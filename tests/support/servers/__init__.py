"""What Hone calls, on loopback: hubs, registries, signers, judges, trackers, slow disks."""
