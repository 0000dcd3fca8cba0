"""The job of an extraction of texts: a language model answers a row for each token."""

from dataclasses import dataclass, replace

import numpy as np

from kdcache.base.devices import chosen_device
from kdcache.base.progress import Progress, silent
from kdcache.base.records import validated
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import LabelSpace
from kdcache.networks.answers import Answers
from kdcache.networks.build import build_network, network_codes, network_text
from kdcache.networks.checks import TeacherCheck, require_determinism
from kdcache.networks.first_views import first_views
from kdcache.networks.preparation import Preparation
from kdcache.networks.text_block import TextExtractor
from kdcache.networks.text_checks import check_text_teacher
from kdcache.networks.text_teacher import TextTeacher
from kdcache.networks.transformers_folder import recorded
from kdcache.networks.weights import load_weights
from kdcache.pipelines.extract.encoding_choice import chosen_encoding, with_fitting_labels
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.views import stored_identity
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.id_sums import IdSums, id_sums
from kdcache.store.layout import SegmentLayout
from kdcache.store.lineage import open_lineage
from kdcache.store.manifest import Identity
from kdcache.store.plan import ViewPlan
from kdcache.store.whole_arrays import make_order
from kdcache.views.contents import contents_of
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.provenance import provenance
from kdcache.views.texts import texts_of_order
from kdcache.views.transforms import none


@dataclass(frozen=True)
class TextJob(Job):
    """The parts of an extraction of texts. `order` [N] and `labels` [N] are of tokens, `dataset` draws texts."""

    teacher: TextTeacher

    def check(self, min_accuracy: float | None, progress: Progress = silent) -> TeacherCheck:
        """Check that texts are read the same twice, and that the teacher knows their language."""
        require_determinism(self.dataset, self.views.start)
        checked = check_text_teacher(
            self.teacher,
            dataset=self.dataset,
            labels=self.labels,
            view=self.views.start,
            texts=self.teacher.texts_of(self.data.sequence, self.batch_rows),
            min_accuracy=min_accuracy,
            progress=progress,
        )
        self.teacher.require_same_weights()
        return replace(checked, notes=(*self.notes, *checked.notes))

    def extractor(self, layout: SegmentLayout) -> TextExtractor:
        return TextExtractor(
            layout=layout,
            identity=self.identity,
            teacher=self.teacher,
            order=self.order,
            labels=self.labels,
            sample_name=self.sample_name,
            batch_rows=self.batch_rows,
            view_bytes=self.view_bytes,
            forward=self.forward,
        )

    def id_sums(self, start: int, stop: int) -> IdSums:
        """The sums over the ids of the texts of positions start to stop - 1, for their block's commit."""
        first, last = start // self.data.sequence, stop // self.data.sequence
        return id_sums(first, (self.data.ids[index] for index in self.dataset.order[first:last].tolist()))

    def sample_name(self, position: int) -> str:
        """The token, the text and its id at a position, for errors."""
        text, token = divmod(int(self.order[position]), self.data.sequence)
        return f"token {token} of text {text} ({self.data.ids[text]})"


def open_text_job(settings: ExtractSettings, data: Data, plan: ViewPlan) -> TextJob:
    """Build the parts of the job; nothing is written. Raises InvalidInputError."""
    require_text_settings(settings, data)
    device, stored = chosen_device(settings.device), stored_identity(settings)
    network = build_network(settings.teacher, settings.teacher_set, data.classes, "teacher")
    notes = load_weights(network, settings.weights, "teacher") if settings.weights else ()
    teacher = TextTeacher(
        network,
        preparation=Preparation((), (), device),
        precision=settings.precision,
        masked_classes=settings.mask_classes,
        answers=Answers(settings.teacher_answers or (stored.teacher.answers if stored else "logits")),
    )
    order, order_identity = make_order(len(data), settings.order, settings.seed, sequence=data.sequence)
    texts = texts_of_order(order, data.sequence)
    tokens = teacher.prepared(data.samples[int(texts[0])][0][None])
    with first_views(network, tokens, "teacher", precision=settings.precision):
        classes = int(next(teacher.chunks(tokens))[1].shape[1])
    if data.vocabulary.size > classes:
        raise InvalidInputError(
            f"the teacher answers {classes:,} ids, and the tokenizer of {data.name} has {data.vocabulary.size:,}: name "
            "the teacher's own tokenizer, or a teacher of this vocabulary"
        )
    space = LabelSpace(classes, teacher.masked_classes)
    encoding = chosen_encoding(settings, space, contents_of(data.samples))
    parents, lineage = open_lineage(settings.weights, settings.parents)
    identity = validated(
        Identity,
        "the store's identity",
        dataset=with_fitting_labels(data.identity(), data, classes),
        order=order_identity,
        views=plan,
        teacher=teacher.identity(
            *recorded(settings.teacher, settings.teacher_set, network),
            classes,
            network_text(network, settings.teacher, stored.teacher.text if stored else ""),
        ),
        encoding=encoding,
        parents=parents,
    )
    dataset = ViewDataset(data.samples, texts, plan, none(), encoding.kinds_of_contents, data.ids)
    return TextJob(
        data=data,
        teacher=teacher,
        identity=identity,
        order=order,
        labels=data.labels[order].astype(np.int64),
        dataset=dataset,
        provenance=provenance(
            device, decoder=data.decoder, data=data.name, code=network_codes(network, settings.teacher)
        ),
        lineage=lineage,
        head={},
        views=settings.views,
        batch_rows=settings.batch_size,
        view_bytes=4 * data.sequence,
        is_new=stored is None,
        notes=(*data.notes, *notes, *teacher.text_notes),
    )


def require_text_settings(settings: ExtractSettings, data: Data) -> None:
    """Raises InvalidInputError for settings that say something of pictures alone."""
    pictures = {
        "--transform": settings.transform != "none",
        "--mix": settings.mix != "none",
        "--mean and --std": bool(settings.mean or settings.std),
        "--keep": bool(settings.keep),
        "--class-map": bool(settings.class_map),
        "--subclasses": settings.subclasses != 1,
        "--on-bad-sample strike": settings.on_bad_sample == "strike",
        "--fill-view-cache": bool(settings.fill_view_cache),
    }
    if wrong := [name for name, given in pictures.items() if given]:
        raise InvalidInputError(
            f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for pictures, and {data.name} holds texts of "
            f"{data.sequence} tokens; leave {'it' if len(wrong) == 1 else 'them'} out"
        )
