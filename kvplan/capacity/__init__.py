"""Many requests at once: how long they are, what allocation wastes, how many cards they need.

    lengths      prompts and outputs of requests: constant, drawn, or a trace's
    allocation   what each policy reserves for them, by lengths alone
    simulation   the same in a pool of a given size: fragments, queues, preemption
    sharing      what a common prefix saves, on the layers that can share it
    eviction     caches with a bound: what is dropped, and which engine can do it
    fleet        replicas x tensor x pipeline ranks for a number of sessions
    rightsize    which context the traffic needs, and what each step of it costs

Pure arithmetic; drawing takes a seed and gives the same lengths every time.
"""
