//! Errors as callers see them: HTTP status, JSON-RPC code, message, data. `docs/errors.md` lists them all.
