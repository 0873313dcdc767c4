"""What several tests stand on: databases, servers, clients."""
