from django.urls import path, re_path

from webapp.curation import views

app_name = "curation"

urlpatterns = [
    path("curation/", views.dashboard, name="dashboard"),
    path("curation/desk/", views.desk, name="desk"),
    path("curation/desk/<uuid:claim_id>/vote/", views.vote, name="vote"),
    path("curation/desk/undo/", views.undo, name="undo"),
    path("curation/desk/stop/", views.stop, name="stop"),
    path("curation/desk/<uuid:claim_id>/face.jpg", views.face, name="face"),
    path("curation/desk/<uuid:claim_id>/photo.jpg", views.photo, name="photo"),
    path("curation/disputes/", views.disputes, name="disputes"),
    path("curation/faces/<uuid:face_id>/", views.history, name="history"),
    path(
        "curation/faces/<uuid:face_id>/face.jpg", views.judged_face, name="judged-face"
    ),
    path(
        "curation/faces/<uuid:face_id>/photo.jpg",
        views.judged_photo,
        name="judged-photo",
    ),
    path("curation/faces/<uuid:face_id>/judge/", views.judge, name="judge"),
    path("curation/faces/<uuid:face_id>/gold/", views.gold, name="gold"),
    path("curation/alike/", views.alike, name="alike"),
    path("curation/gold/", views.golds, name="golds"),
    path("curation/alike/undo/<uuid:batch>/", views.undo_alike, name="undo-alike"),
    path("curation/invitations/", views.invite, name="invite"),
    path(
        "curation/invitations/<uuid:invitation_id>/withdraw/",
        views.withdraw,
        name="withdraw",
    ),
    path("curation/people/", views.people, name="people"),
    path("curation/people/<str:username>/", views.person, name="person"),
    path("curation/people/<str:username>/change/", views.change, name="change-person"),
    re_path(
        r"^curation/export/labels\.(?P<kind>csv|jsonl|zip)$",
        views.export,
        name="export",
    ),
    path("curation/me/", views.me, name="me"),
]
