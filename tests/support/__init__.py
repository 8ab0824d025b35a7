"""What tests are made of: servers, peers, layers, and what must be true of them."""
