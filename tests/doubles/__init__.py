"""Stand-ins for hardware: real files and libraries that the real code paths read. Nothing in the product knows them."""
