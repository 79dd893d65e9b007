"""xmalign_lab: bring a low-resource language into an image–text space, see what happened, know whether it worked.

    corpus       Corpus, Pairs: what there is, and what we believe is aligned
    languages    one code system (swh_Latn), script, family, resource tier
    profile      smoke | small | full: pick(), seeding, device, paths
    similarity   tiled exact top-k and ranks, CSLS, margins: the only home of nearest neighbours (counting: its kernels)
    schedules    a number as a function of training progress and of the batch
    corpora      scenes (procedural), emoji (CLDR × images), tables (your own), captions, parallel, labelled, lexicons
    encoders     classic (no weights), static (word vectors), tiny, levels, subwords (from scratch), pretrained, clip, trainable
                 (from others), sequences (frames, tokens), translate (machine translation); Features, Inputs and their cache
    pairs        confidence, thresholds, mining (dictionary: through words), augmenting, pseudo (translated captions and their way
                 back), noise: all Pairs → Pairs
    losses       functions of a similarity matrix, a mask of positives and a temperature; ranking (triplets); regularisers; an
                 adversary; local (words and patches), transfer (from a teacher)
    ridge        a map in closed form, and what it says of a family that it was not shown
    model        the Aligner and its towers (heads: over frozen features)
    recipe       Recipe: terms, schedules, stages; everything that decides a run
    train        train(): a generator of steps; fit() drains it (batches: what a step sees; state: what a run remembers)
    records      run folders: the only source of any number shown
    evaluate     retrieval, words, transfer, space: one value per query; significance; means and tests in the report
    mlm          masked words, for a text tower before it is trained with others
    study        folds and tasks; baselines, adaptive, lowresource, cl2cm: methods as recipes; nrccr: one with a loop of its own;
                 sweep: methods × noise × parallel text; reproduce: published figures; crossmodal: the published sets of transfer
    projection   PCA and UMAP as added columns, laid on each other, the moments of a training; export: for other explorers
    asking       a model asked with any text or picture: what drove the answer, and what it is worth
    workbench    what a dashboard turns: noisy pairs with their belief, runs of seconds, and their numbers
    plots        pure functions → plotly figures; spaces: a space, judged; selections: points chosen by hand; dials: schedules,
                 thresholds, runs; curves: the study's; pictures: HTML with thumbnails; heatmaps: words over pictures;
                 style: their look
    widgets      the interactive twins of the plots; worked: a language of your own, from files to a page
    lessons      guesses and questions of a lesson; game: a sealed test for a class; naming: names in your own language
    cli, doctor  the command `xmalign`

Imports point one way, from the lower half of this list to the upper; importing the package itself costs nothing.
"""
