"""Telling people and programs of alarms: Alertmanager, webhooks, a retraining hook."""
