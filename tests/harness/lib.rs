//! Starts weir, peers and clients for the end-to-end tests.
