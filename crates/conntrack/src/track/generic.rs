//! Every other protocol: one flow per protocol and address pair.
