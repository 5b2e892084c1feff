"""Who may call, and how much: identities, roles, quotas, the audit log."""
