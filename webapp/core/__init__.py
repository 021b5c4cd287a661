"""What every app stands on: base model, errors, storage, headers. Imports no app."""
