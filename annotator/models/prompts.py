"""What was asked and what was answered. Rows arrive by COPY, hundreds of thousands at a time."""

from __future__ import annotations

from django.db import models

from annotator.models.projects import Project


class Split(models.TextChoices):
    TRAIN = "train", "Train"
    VALIDATION = "validation", "Validation"
    TEST = "test", "Test"


class Image(models.Model):
    """A picture as the product keeps it: decoded, turned upright, stripped, encoded anew.

    The same pixels are kept once per project. ``services.images`` is the only writer.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="images", db_index=False)
    digest = models.BinaryField(max_length=16)  # of the re-encoded file
    file = models.FileField(upload_to="images/", max_length=200)
    thumbnail = models.FileField(upload_to="images/", max_length=200)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    size_bytes = models.PositiveIntegerField()
    alt = models.CharField(max_length=500, blank=True)
    import_run_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "digest"], name="one_image_per_digest")
        ]

    def __str__(self) -> str:
        return f"image {self.pk}"


class Prompt(models.Model):
    """A conversation that ends where a response begins.

    ``split`` is drawn from the content hash (services.splits), so that no prompt is ever on
    both sides of a split, whoever imports it and whenever.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts", db_index=False)
    content_hash = models.BinaryField(max_length=16)
    messages = models.JSONField()  # [{"role": "system" | "user" | "assistant", "content": str}]
    # Editing starts from a source; inpainting has a mask over it, white where it may change.
    source_image = models.ForeignKey(
        Image, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    mask_image = models.ForeignKey(
        Image, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    # Prompts cut from one conversation share its name; ``turn`` counts its replies from 1.
    thread = models.CharField(max_length=40, blank=True, db_default="")
    turn = models.PositiveSmallIntegerField(db_default=0)
    split = models.CharField(max_length=10, choices=Split)
    external_id = models.CharField(max_length=200, blank=True)
    tags = models.JSONField(default=list)
    extra = models.JSONField(default=dict)  # imported columns that no field claims
    import_run_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="one_prompt_per_hash")
        ]

    def __str__(self) -> str:
        return f"prompt {self.pk}"

    @property
    def last_message(self) -> str:
        return self.messages[-1]["content"] if self.messages else ""


class Response(models.Model):
    """One model output. Its generator is never shown to annotators before they vote.

    The same text by two named generators is two responses: win rates need both.
    """

    # Denormalized foreign keys carry no database constraint here and below: the parent's does
    # the work, and each constraint costs an import about 5 µs a row.
    project = models.ForeignKey(
        Project, models.CASCADE, related_name="responses", db_constraint=False, db_index=False
    )
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="responses", db_index=False)
    content_hash = models.BinaryField(max_length=16)
    text = models.TextField(blank=True)
    messages = models.JSONField(null=True)  # when the reply is more than one message
    image = models.ForeignKey(
        Image, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    # The name by which the text gives its model away; empty where none was found.
    leak = models.CharField(max_length=80, blank=True, db_default="")
    generator = models.CharField(max_length=120, blank=True)
    sampling = models.JSONField(default=dict)
    extra = models.JSONField(default=dict)
    import_run_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # Leads with prompt, so it also serves "the responses of this prompt".
            models.UniqueConstraint(fields=["prompt", "content_hash"], name="one_response_per_hash")
        ]

    def __str__(self) -> str:
        return f"response {self.pk}"
