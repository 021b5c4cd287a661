"""The pages of training: form, service, render. For admins alone."""
