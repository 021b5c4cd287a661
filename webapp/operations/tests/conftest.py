from webapp.photos.tests.conftest import champion, fresh_model_server, media

__all__ = ["champion", "fresh_model_server", "media"]
