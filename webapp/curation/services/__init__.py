"""State changes of curation: votes, claims, consensus and gold go through here."""
