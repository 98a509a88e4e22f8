//! What holds whatever the bytes are.
