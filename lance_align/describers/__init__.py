"""Pictures to texts: captions, answers to questions, what an instruction asks for.

    spec         `DescriberSpec`: a model, what it is asked and how, as JSON
    prompts      prompts that name columns of a row
    base         the contract: `Describer`, `Descriptions`
    checkpoints  a model's name to its directory, and what lies there to a family
    loading      `load_describer`: one describer a spec and device in this process; weights that fit their class
    generating   what the families share: pictures and prompts to batches, tokens to texts
    sampling     tokens drawn at random, the same for a row whatever batch it is in
    blip         captions and answers of BLIP
    instructblip answers of InstructBLIP
    llava        LLaVA, and any other image-text-to-text model with a chat template

Nothing here needs LanceDB, Ray or pyarrow. Nothing is imported here: `spec` and `prompts` need neither torch nor
transformers, and tables read specs.
"""
