"""The visitor's pages, by subject: form, service, render."""
