"""A cluster reached over AMQP: the conversation of the Open WebRTC Toolkit's own agents, on RabbitMQ."""

from __future__ import annotations
