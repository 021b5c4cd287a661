from django.urls import path

from webapp.curation import api

urlpatterns = [
    path("curation/claims", api.ClaimsView.as_view(), name="api-claims"),
    path("curation/claims/renew", api.RenewView.as_view(), name="api-claims-renew"),
    path(
        "curation/claims/<uuid:claim_id>/verdict",
        api.VoteView.as_view(),
        name="api-vote",
    ),
    path(
        "curation/claims/<uuid:claim_id>/skip", api.SkipView.as_view(), name="api-skip"
    ),
    path("curation/undo", api.UndoView.as_view(), name="api-undo"),
    path("curation/queue", api.QueueView.as_view(), name="api-queue"),
    path("curation/me", api.MeView.as_view(), name="api-me"),
    path("curation/people", api.PeopleView.as_view(), name="api-people"),
    path(
        "curation/people/<str:username>/pause",
        api.PauseView.as_view(),
        name="api-pause",
    ),
    path("curation/disputes", api.DisputesView.as_view(), name="api-disputes"),
    path(
        "curation/faces/<uuid:face_id>/history",
        api.HistoryView.as_view(),
        name="api-history",
    ),
    path(
        "curation/faces/<uuid:face_id>/verdict",
        api.JudgeView.as_view(),
        name="api-judge",
    ),
    path("curation/faces/<uuid:face_id>/gold", api.GoldView.as_view(), name="api-gold"),
    path("curation/bulk", api.BulkView.as_view(), name="api-bulk"),
    path("curation/bulk/<uuid:batch>", api.BatchView.as_view(), name="api-bulk-batch"),
    path("invitations", api.InvitationsView.as_view(), name="api-invitations"),
]
