package proxy

// loops returns the engine that stands on event loops.
func loops(p *policies) engine { return newLoopEngine(p) }
