"""Weight files that other toolkits wrote, loaded without running anything in them.

    hints           what a file cannot tell about itself: arguments, options, or prior.toml beside it
    unpickle        tensors out of .pt, .pth and .pkl files; a name that is not on a short list is refused
    fit             weights into a network: every name and shape must meet, every number must be finite
    denoisers       from what a network predicts (noise, score, image, velocity) to E[x_0 | x]
    schedules       noise levels of nets that were trained at discrete steps
    layers  song_unet  ddpm_unet  dhariwal_unet  adm_unet    networks, parameters named as in the files
    adm  score_sde  edm  diffusers_folder (diffusers_betas)  deepinv_denoiser    one format each
    detect          which of these a file is, by its content

Read hints, denoisers and adm first: the other formats repeat their pattern.
"""
