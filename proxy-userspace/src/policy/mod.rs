//! What may pass. One policy for every front; each refusal says which rule it comes from.

pub mod acl;
