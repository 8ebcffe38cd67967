//! The types both halves of weir share: what the kernel programs and the proxy exchange through maps.
#![no_std]
