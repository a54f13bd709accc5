"""How the adapters become one: one file each."""
