"""Who may do what: credentials, scopes, tenants, users, streams in browsers."""
