"""The pages of the demo."""

from __future__ import annotations

from django.urls import path

from channels_redis_fast.demo import views

urlpatterns = [
    path("", views.room, {"room": "lobby"}),
    path("room/<slug:room>/", views.room),
    path("static/<str:name>", views.asset, name="asset"),
]
